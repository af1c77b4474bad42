"""Our model served over a socket: codec, dialects, server. No ROS; torch only with the model."""
