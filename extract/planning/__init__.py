"""What is to be run: the choices of a run, the jobs they leave, pieces of work for a device, what all of it would cost.

Imports models, datasets and classes; passes, engines and commands carry out what is planned here.
"""
