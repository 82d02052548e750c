"""The `container` runtime: namespaces, cgroups, overlay and seccomp, made by the spawner in about a millisecond."""
