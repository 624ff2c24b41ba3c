"""Style files: reading what this and other tools write, writing what they read, and proving that it is right."""
