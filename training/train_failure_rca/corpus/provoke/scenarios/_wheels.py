"""Writes the smallest wheels that pip accepts; becomes ``make_wheels.py`` beside a program."""

MAKE_WHEELS = """
import zipfile


def wheel(name, version, requires=(), tag="py3-none-any", content=b""):
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    metadata += "".join(f"Requires-Dist: {line}\\n" for line in requires)
    with zipfile.ZipFile(f"wheels/{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n"
        )
        archive.writestr(f"{info}/RECORD", "")


"""
