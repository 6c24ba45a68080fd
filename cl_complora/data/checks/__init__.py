"""What a look at the data finds: broken pictures, copies, implausible sets."""
