"""Underdog: RL post-training for tiny reasoners."""
