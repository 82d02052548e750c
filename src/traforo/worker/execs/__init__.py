"""Commands in sandboxes: started, fed, followed while they run and asked about afterwards."""
