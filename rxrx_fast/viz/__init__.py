"""Pictures of sites, plates and batches."""
