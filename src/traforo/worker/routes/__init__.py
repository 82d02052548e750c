"""The HTTP routes of the worker, a module for each subject, over the services of one context."""
