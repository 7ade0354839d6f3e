"""Arrays in, arrays out: the numerics of warpbeam, without Beam, files or progress."""
