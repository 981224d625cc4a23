"""One Protocol and its request and response records per hop between rooms. Contracts only, no logic."""
