"""From a policy to the kernels' arguments: sampled parameters, geometry, views and mixing."""
