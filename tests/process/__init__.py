"""Real processes: signals, terminals, many at once, the wheel, the main job from a cold start."""
