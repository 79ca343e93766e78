"""Container definitions: Dockerfiles, the relay's configuration, the seccomp profile, the local model's server."""
