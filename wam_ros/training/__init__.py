"""Training of World-Action Models: from a GEAR dataset to a checkpoint. No ROS here."""
