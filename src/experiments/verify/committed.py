"""Whether the files of a commit are those of its dvc.lock: its sources, and its outputs in git."""

from pathlib import Path

from src.plumbing import dvc_files, git, hashes, identity, params


def changed_sources(lock: str, folder: Path) -> list[str]:
    """The params and sources in `folder` that differ from `lock`, its dvc.lock as text, in words.
    What stages make is no source. The commit may have other keys or fewer stages than this code."""
    values = params.load_texts(folder)
    entries = (
        dvc_files.stage_entry(name, values, folder) for name in dvc_files.declared_stages(folder)
    )
    made = {out for entry in entries for out in entry.outs}

    def is_source(dep: str) -> bool:
        return dep not in made and (folder / dep).exists()

    found: list[str] = []
    for item in identity.differences_from_lock(lock, values, folder, is_source):
        if item.kind == "never ran":
            found.append(f"{item.stage} never ran")
        elif item.kind == "dep":
            is_code = dvc_files.is_code(item.key)
            files = (
                git.files_changed(item.key, item.before or "", folder) if is_code else [item.key]
            )
            found += [f"{item.stage}: {path} has changed" for path in files]
        elif item.now is None:
            found.append(f"{item.stage}: {item.key} is missing")
        else:
            found.append(f"{item.stage}: {item.key} is {item.now}, was {item.before}")
    return found


def changed_outputs(lock: str, folder: Path) -> list[str]:
    """The outputs in git that are not those of the dvc.lock with the text `lock`, in words.
    `folder`: a checkout in which no stage has run, so what DVC keeps in its cache is not there."""
    values, found = params.load_texts(folder), []
    for name in dvc_files.declared_stages(folder):
        entry = dvc_files.stage_entry(name, values, folder)
        outs = (identity.locked_stage(lock, name) or {"outs": {}})["outs"]
        for path in dict.fromkeys([*outs, *entry.outs]):
            if not (folder / path).exists():
                if path in entry.uncached:
                    found.append(f"{path} is not in git")
            elif hashes.md5_of(folder / path) != outs.get(path):
                found.append(f"{path} is not what {name} wrote")
    return found
