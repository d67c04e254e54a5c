"""What the words of this project mean, as frozen values: no network, no clock, no chance."""
