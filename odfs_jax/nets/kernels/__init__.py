"""How layers are computed fastest on each kind of device."""
