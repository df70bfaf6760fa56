# docker build -t odfs .                                   on CPUs
# docker build -t odfs --build-arg EXTRA=cuda13 .          on NVIDIA cards (cuda12: older drivers)
# docker run --rm -it --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" odfs swap src=a.mp4 dst=b.mp4 out=c.mp4
FROM python:3.11-slim-bookworm

ARG EXTRA=identity
WORKDIR /src
COPY . .
# OpenCV without windows, which needs no libGL and no X11.
RUN pip install --no-cache-dir --constraint constraints.txt ".[identity,studio,$EXTRA]" \
    && pip uninstall --yes opencv-python \
    && pip install --no-cache-dir --constraint constraints.txt opencv-python-headless

# Of whoever runs it: the key that results are signed with, and compiled programs.
ENV HOME=/work/.home
WORKDIR /work
ENTRYPOINT ["odfs"]
