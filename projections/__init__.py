"""Events into tables. Imports ``bus``, never ``services``."""
