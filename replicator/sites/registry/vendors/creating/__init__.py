"""How each vendor that wants it creates repositories, one module each."""
