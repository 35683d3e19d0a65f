"""Files of other programs, made by hand where possible, so that neither these programs nor downloads are needed."""
