"""Side by side with peers, as ratios measured in one run: `make bench`."""
