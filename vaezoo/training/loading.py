"""Stand-in."""


def ahead(part, indices, device, workers):
    for index in indices:
        x, y = part.raw(index)
        yield type(part.raw(slice(0, 0)))(x.to(device), None if y is None else y.to(device))


def fits(part, device):
    return True
