"""The float64 proof of a fold: both graphs are cut into regions, each of which computes the same in both."""
