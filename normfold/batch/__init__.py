"""Many models: the same fold for each, in processes of this machine or on a Dask cluster."""
