"""Sub-commands of `wam`: each module has ``add_parser(sub)`` and ``run(args)``."""
