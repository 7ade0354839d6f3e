"""Even illumination: what the microscope does to every tile alike, and to each tile as a whole."""
