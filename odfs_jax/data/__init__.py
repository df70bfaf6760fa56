"""Files in and out: aligned faces, videos, workspace paths, facesets on the device."""
