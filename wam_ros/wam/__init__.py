"""The World-Action Model: inference of DreamZero, torch only, no ROS.

Importing this package imports neither torch nor anything of the sort, so that nodes which merely
look at a configuration start fast. Import the modules below it for the model itself.
"""
