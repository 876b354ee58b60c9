"""What every HTTP service of Presage stands behind: ``protection.protect(app, settings, api=…)``.

Nothing is imported here: the command line of services without HTTP comes by.
"""
