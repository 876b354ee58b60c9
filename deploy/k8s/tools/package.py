"""Makes a package of the folder it is mounted in."""
