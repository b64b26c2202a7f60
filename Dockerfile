# One image for the sidecar, the trainer and the simulated vLLM servers; the command says which it is.
#
#   docker build -t vllm-extproc .
#   docker run --rm --read-only vllm-extproc --help

# The sections of the lock file, each on its own: a change of the tools for development builds nothing anew.
FROM python:3.11-slim AS requirements
COPY requirements.lock .
RUN sed '/^# Building/,$d' requirements.lock > image.txt \
    && sed '/^# The image/,/^# Building/d; /^# Development/,$d' requirements.lock > building.txt

FROM python:3.11-slim AS build
# libgomp is what LightGBM links to; binutils has `strip`.
RUN apt-get update && apt-get install -y --no-install-recommends binutils libgomp1
WORKDIR /src
# No pip gets into the environment: this one installs into it from outside.
RUN python -m venv --without-pip /opt/extproc
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies first, which change seldom: after a change of the code a build takes seconds.
COPY --from=requirements image.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/extproc/bin/python install --no-compile --require-hashes --requirement image.txt
# Debuggers, compilers and the developers of the libraries read the files that are deleted first: 85 MB. (The libraries
# in *.libs were edited after they were linked, and do not survive `strip`.) The rest is never loaded here: 28 MB.
# Matplotlib draws PNG with one font, so that it needs no PDF, no other fonts, and of Pillow no other formats.
RUN find /opt/extproc -type d \( -name tests -o -path '*/fontTools/*' -not -name misc \) -prune -exec rm -r {} + \
    && find /opt/extproc -type f -regex '.*\.\(pyi\|pyx\|pxd\|h\|a\)' -delete \
    && find /opt/extproc /usr/local/lib -type f -name '*.so*' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && cd /opt/extproc/lib/python3.11/site-packages \
    && rm -r scipy/cluster scipy/datasets scipy/differentiate scipy/fftpack scipy/io scipy/misc scipy/odr scipy/signal \
    && rm -r matplotlib/mpl-data/fonts/afm matplotlib/mpl-data/fonts/pdfcorefonts matplotlib/mpl-data/sample_data \
    && find matplotlib/mpl-data/fonts/ttf -not -regex '.*/\(DejaVuSans\|LastResort\).*' -type f -delete \
    && rm PIL/_avif.* PIL/_webp.* PIL/_imagingcms.* PIL/_imagingft.* \
    && find pillow.libs -regex '.*/lib\(avif\|webp\|sharpyuv\|harfbuzz\|freetype\|brotli\|lcms2\|png\).*' -delete \
    && cd /usr/local/lib/python3.11 \
    && rm -r ensurepip lib2to3 pydoc_data turtledemo /usr/local/include
# The tools that build the package stay outside of the environment, and find in it what they share with the sidecar.
COPY --from=requirements building.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile --no-deps --target /opt/building --require-hashes --requirement building.txt
COPY pyproject.toml README.md hatch_build.py ./
COPY envoy envoy
COPY protos protos
COPY extproc extproc
RUN --mount=type=cache,target=/root/.cache/pip \
    PYTHONPATH=/opt/building pip --python /opt/extproc/bin/python install --no-compile --no-build-isolation --no-deps .
# The root file system will be read-only, so that Python cannot keep its bytecode: here it does, of what the three
# roles import. That also proves that nothing of it is missing.
RUN /opt/extproc/bin/python -P -c 'import extproc.app, extproc.adapters.trainer.training_loop, extproc.lab.simulated_vllm.vllm_server, uvloop' \
    && /opt/extproc/bin/extproc --help > /dev/null \
    && pip uninstall --yes wheel setuptools pip

FROM python:3.11-slim AS root
# Anybody may write to the two directories, so that a container can run as any user: volumes begin like this. Nothing is
# installed into a running container, so that it needs no package manager, no Perl, and no encodings but UTF-8.
RUN rm -rf /usr/local /usr/share/doc /usr/share/info /usr/share/locale /usr/share/man \
    && groupadd --gid 1000 extproc \
    && useradd --uid 1000 --gid 1000 --no-create-home --shell /usr/sbin/nologin extproc \
    && install --directory --mode 1777 /run/extproc /var/lib/extproc \
    && rm -rf /usr/bin/perl* /usr/share/perl5 /usr/lib/*-linux-gnu/perl-base /usr/lib/*-linux-gnu/gconv \
        /usr/bin/apt* /usr/lib/apt /usr/lib/*-linux-gnu/libapt-* /var/cache/*
COPY --from=build /usr/local /usr/local
COPY --from=build /usr/lib/*-linux-gnu/libgomp.so.1 /usr/local/lib/
RUN ldconfig
COPY --from=build /opt/extproc /opt/extproc

# What is deleted in a layer still counts in those below it; one layer has only what is there.
FROM scratch
COPY --from=root / /
ENV PATH=/opt/extproc/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp
USER 1000:1000
WORKDIR /var/lib/extproc
EXPOSE 9002 9003
# That of a sidecar. What runs as something else brings its own.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/9003 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.. 200' <&3"]
ENTRYPOINT ["extproc"]
CMD ["serve", "--config", "/etc/extproc/extproc.yaml"]
