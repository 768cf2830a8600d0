"""The main job on real traffic, on a host built from network namespaces."""
