"""The ways in of other systems, which launch containers here and hear of them: one package each."""
