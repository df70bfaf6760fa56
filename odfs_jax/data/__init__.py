"""Files in and out: aligned faces, clips and pictures, workspaces, facesets on the device."""
