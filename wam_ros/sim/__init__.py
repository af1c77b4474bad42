"""Simulated robots and tables: MuJoCo scenes built from the same URDF and contract."""
