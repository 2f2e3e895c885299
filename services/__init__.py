"""One module or folder per service, each with its pure functions apart from the I/O around them. ``app`` wires them."""
