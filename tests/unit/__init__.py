"""One module at a time, without a command; a server where the module speaks to one."""
