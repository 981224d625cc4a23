"""Where container images come from: registries, layout folders, archives; never what is in their layers."""
