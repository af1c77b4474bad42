"""Episodes to MCAP, and from MCAP to a data set and its quality report. No ROS."""
