"""Running a network on images of any size: padding, tiles, self-ensemble, picture files."""
