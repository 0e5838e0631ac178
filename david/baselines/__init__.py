"""What DAViD is compared with."""
