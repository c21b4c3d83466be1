"""The devices that programs run on, and the vectors that describe them."""
