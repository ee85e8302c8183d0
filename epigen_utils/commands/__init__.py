"""What the command line does beside building: one's own data, parameters as a file, skeletons, a site as a zip."""
