"""TRL's GRPOTrainer and Underdog, side by side (being written)."""
