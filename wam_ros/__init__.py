"""Run a World-Action Model on a robot through ROS 2."""

# A source checkout on the path would hide the generated message modules that sit in the
# installed copy of this package; extending the path joins the two halves.
import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
__version__ = "0.1.0"
