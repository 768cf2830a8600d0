"""The agent: flags, start-up checks, start-up → main loop → shutdown."""
