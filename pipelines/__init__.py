"""The jobs: typed configuration, plan, Beam graph, command line, report."""
