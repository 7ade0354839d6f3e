"""Spring meshes: smooth maps of sections or volumes that follow measured flow."""
