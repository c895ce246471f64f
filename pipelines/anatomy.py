"""The anatomy of the phantom chest, written down in patient millimetres and painted on any grid.

x runs to the patient's left, y to the back, z to the head (L, P, S of the standard).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Variant = Literal["normal", "effusion", "one_lung", "mass", "sharp_kernel", "touching"]
Orientation = Literal[
    "axial",
    "axial_reversed",
    "coronal",
    "coronal_reversed",
    "sagittal",
    "sagittal_reversed",
    "oblique",
    "oblique_double",
]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]

VARIANTS: tuple[Variant, ...] = get_args(Variant)
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)
LEFT_LUNG, RIGHT_LUNG = 1, 2
"""Labels of the lungs."""

HALF_EXTENT = (174.0, 124.0, 162.0)
"""Semi-axes (L, P, S) in mm of the ellipsoid that every grid must enclose slab by slab."""
AIR, FAT, WATER, SOFT, LIVER, BONE = -1000.0, -100.0, 8.0, 45.0, 62.0, 420.0
PARENCHYMA, EMPHYSEMA = -862.0, -990.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels of a volume lie: as `Volume.affine` and the shape of its array."""

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    def window(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """Index window that holds every voxel inside the box of patient millimetres."""
        corners = np.array(
            [[(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]] for i, j, k in np.ndindex(2, 2, 2)]
        )
        index = (corners - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T
        first = np.clip(np.floor(index.min(axis=0)).astype(int), 0, self.shape)
        last = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, 0, self.shape)
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])

    def coordinates(self, window: tuple[slice, slice, slice]) -> tuple[Floats, Floats, Floats]:
        """Patient x (left), y (back), z (up) of the window's voxels, each broadcastable to its shape."""
        steps = np.ix_(*(np.arange(axis.start, axis.stop, dtype=np.float32) for axis in window))
        x, y, z = (
            sum((np.float32(row[axis]) * steps[axis] for axis in range(3) if abs(row[axis]) > 1e-9), np.float32(row[3]))
            for row in self.affine[:3]
        )
        return x, y, z  # type: ignore[return-value]


def _turned(yaw: float, pitch: float) -> NDArray[np.float64]:
    """Axial row and column directions, turned about the head axis and then tipped about the left axis (degrees)."""
    a, b = np.radians(yaw), np.radians(pitch)
    about_head = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_left = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    directions: NDArray[np.float64] = (about_left @ about_head)[:, :2].T
    return directions


def directions(orientation: Orientation) -> NDArray[np.float64]:
    """Row direction (of increasing column), column direction; their cross product is the slice direction."""
    plain = {"axial": ((1, 0, 0), (0, 1, 0)), "coronal": ((1, 0, 0), (0, 0, -1)), "sagittal": ((0, 1, 0), (0, 0, -1))}
    if orientation == "oblique":
        return _turned(0.0, 22.0)
    if orientation == "oblique_double":
        return _turned(17.0, -13.0)
    row, column = np.array(plain[orientation.removesuffix("_reversed")], dtype=np.float64)
    return np.stack([-row if orientation.endswith("_reversed") else row, column])


def grid(orientation: Orientation, spacing: Point) -> Grid:
    """A grid of this orientation that holds the whole chest."""
    row, column = directions(orientation)
    axes = np.stack([np.cross(row, column), column, row], axis=1)
    half = np.sqrt(((axes * np.array(HALF_EXTENT)[:, None]) ** 2).sum(axis=0))
    if orientation.startswith("oblique"):
        half *= 1.09  # a slab across a corner needs more of it
    shape = np.maximum(2 * np.round(half / np.array(spacing)), 2).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = np.round(-affine[:3, :3] @ ((shape - 1) / 2) + (1.5, -2.5, 0.5), 4)
    return Grid(affine, (int(shape[0]), int(shape[1]), int(shape[2])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodule:
    """An ellipsoid in a lung: its middle and semi-axes (L, P, S) in mm, and its attenuation in HU."""

    centre: Point
    semi: Point
    hu: float

    @property
    def diameter(self) -> float:
        """Diameter of the ball of the same volume, in mm."""
        return 2.0 * float(np.cbrt(np.prod(self.semi)))


class Canvas:
    """The grid being painted: values, labels and what lies where."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.hu = np.full(grid.shape, AIR, dtype=np.float32)
        self.labels = np.zeros(grid.shape, dtype=np.uint8)
        self.emphysema = np.zeros(grid.shape, dtype=bool)
        self.mass = np.zeros(grid.shape, dtype=bool)
        self.nodules = np.zeros(grid.shape, dtype=np.uint8)
        """Number of the Anatomy's own nodule, from 1."""

    def whole(self) -> tuple[Floats, Floats, Floats]:
        return self.grid.coordinates(self.grid.window((-1e4,) * 3, (1e4,) * 3))

    def ball(self, centre: Point, semi: Point) -> tuple[tuple[slice, slice, slice], Mask]:
        """Window and mask of the ellipsoid about `centre`."""
        window = self.grid.window(*_box([centre], max(semi)))
        x, y, z = self.grid.coordinates(window)
        squared = ((x - centre[0]) / semi[0]) ** 2 + ((y - centre[1]) / semi[1]) ** 2 + ((z - centre[2]) / semi[2]) ** 2
        return window, squared < 1

    def tube(self, start: Point, end: Point, radius: float) -> tuple[tuple[slice, slice, slice], Mask]:
        """Window and mask of the capsule between two points."""
        window = self.grid.window(*_box([start, end], radius))
        x, y, z = self.grid.coordinates(window)
        dx, dy, dz = (np.float32(b - a) for a, b in zip(start, end, strict=True))
        px, py, pz = x - start[0], y - start[1], z - start[2]
        along = np.clip((px * dx + py * dy + pz * dz) / max(dx * dx + dy * dy + dz * dz, 1e-6), 0, 1)
        return window, (px - along * dx) ** 2 + (py - along * dy) ** 2 + (pz - along * dz) ** 2 < radius**2


def _box(points: Sequence[Point], margin: float) -> tuple[Point, Point]:
    array = np.array(points)
    low, high = array.min(axis=0) - margin, array.max(axis=0) + margin
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


class Anatomy:
    """Where things are, in patient millimetres: x to the left, y to the back, z to the head."""

    heart: tuple[Point, Point] = ((26, -26, -46), (57, 46, 52))
    domes = ((("left"), (76, -6), -78.0), (("right"), (-74, -8), -60.0))
    carina: Point = (2, 20, 40)
    airways: tuple[tuple[Point, Point, float, float], ...] = (
        ((1, 8, 175), (1, 12, 118), 8.6, 2.0),
        ((1, 12, 118), (2, 20, 40), 8.6, 2.0),
        ((2, 20, 40), (-35, 24, 14), 7.0, 1.9),
        ((2, 20, 40), (43, 27, 4), 6.2, 1.8),
        ((-35, 24, 14), (-58, 30, -10), 4.4, 1.5),
        ((43, 27, 4), (64, 34, -18), 4.2, 1.5),
        ((-35, 24, 14), (-54, 8, 30), 3.6, 1.4),
        ((43, 27, 4), (60, 6, 24), 3.6, 1.4),
    )
    hila: tuple[Point, Point] = ((38, 25, 4), (-34, 24, 12))

    def __init__(
        self, variant: Variant, seed: int, junction_mm: float, nodules: Sequence[Nodule] | None = None
    ) -> None:
        self.variant = variant
        self.nodules = nodules
        """Those that are painted; None: four of known size at random places."""
        self.random = np.random.default_rng([seed, 20240517])
        self.junction = junction_mm / 2
        self.mass_centre: Point = (-82, 6, 48)
        self.mass_radius = 25.0

    def body(self, x: Floats, y: Floats, z: Floats, *, inset: float = 0.0) -> Mask:
        """The trunk below the shoulders, narrowing to a neck."""
        narrowing = np.clip((z - 92) / 72, 0, 1) ** 2
        return _oval(x, y, 166 - 92 * narrowing - inset, 112 - 42 * narrowing - 0.8 * inset) < 1

    def cavity(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """1 on the inner surface of the rib cage, less inside; NaN above the apex."""
        height = np.clip((z - 8) / 116, 0, None)
        with np.errstate(invalid="ignore"):
            dome = np.sqrt(1 - height**2)
        return _oval(x, y + 2, 136 * dome, 87 * dome)

    def mediastinum(self, x: Floats, y: Floats, z: Floats) -> Mask:
        """Everything between the lungs but the heart: great vessels, spine, and a thin junction in front."""
        front = np.clip((y + 30) / 30, 0, 1)
        low = np.clip((-z - 20) / 40, 0, 1) * 14
        half = self.junction + (25.0 - self.junction) * front + low * (y < 0)
        aorta = ((x - 24) ** 2 + (y - 44) ** 2 < 13**2) & (z < 52)
        arch = ((x - 20) / 18) ** 2 + ((y - 18) / 34) ** 2 + ((z - 52) / 13) ** 2 < 1
        spine = (x / 25) ** 2 + ((y - 64) / 24) ** 2 < 1
        between: Mask = (np.abs(x - 3) < half) | aorta | arch | spine
        return between

    def lung(self, x: Floats, y: Floats, z: Floats, side: str) -> Mask:
        """The pleural cavity of one side less what indents it."""
        _, (cx, cy), top = next(dome for dome in self.domes if dome[0] == side)
        lateral = x > 3 if side == "left" else x <= 3
        from_dome = ((x - cx) / 60) ** 2 + ((y - cy) / 80) ** 2
        floor = np.maximum(top - 58 * from_dome, -136.0)
        (hx, hy, hz), (ha, hb, hc) = self.heart
        heart = ((x - hx) / ha) ** 2 + ((y - hy) / hb) ** 2 + ((z - hz) / hc) ** 2 < 1
        ix, iy, iz = self.hila[0] if side == "left" else self.hila[1]
        hilum = ((x - ix) / 15) ** 2 + ((y - iy) / 14) ** 2 + ((z - iz) / 20) ** 2 < 1
        cavity = self.cavity(x, y, z) < 1
        inside: Mask = cavity & lateral & (z > floor) & ~heart & ~hilum & ~self.mediastinum(x, y, z)
        return inside

    def anywhere(self, side: str, margin: float) -> Point:
        """A random point of a lung at least `margin` from its surface in the six axis directions."""
        offsets = np.concatenate([np.zeros((1, 3)), margin * np.eye(3), -margin * np.eye(3)])
        for _ in range(10_000):
            point = self.random.uniform((-140, -90, -130), (140, 90, 125))
            x, y, z = (point + offsets).astype(np.float32).T
            if self.lung(x, y, z, side).all() and self.from_airway(point) > margin + 4:
                return (float(point[0]), float(point[1]), float(point[2]))
        raise AssertionError("no room in the lung")

    def from_airway(self, point: NDArray[np.float64]) -> float:
        """Distance of a point from the wall of the nearest airway."""
        distances = []
        for start, end, radius, wall in self.airways:
            along = np.subtract(end, start)
            share = np.clip((point - start) @ along / (along @ along), 0, 1)
            distances.append(float(np.linalg.norm(point - start - share * along)) - radius - wall)
        return min(distances)


def _oval(x: Floats, y: Floats, a: Any, b: Any) -> Floats:
    """A slightly squared ellipse: 1 on its line, less inside."""
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = (x / a) ** 2, (y / b) ** 2
        oval: Floats = np.sqrt(p * p + q * q + 1.45 * p * q)
    return oval


def paint(canvas: Canvas, anatomy: Anatomy) -> None:
    """The whole chest, what lies inside after what lies around it."""
    for part in (_trunk, _lungs, _disease, _vessels, _airways, _marker):
        part(canvas, anatomy)


def _trunk(canvas: Canvas, anatomy: Anatomy) -> None:
    x, y, z = canvas.whole()
    hu = canvas.hu
    hu[anatomy.body(x, y, z)] = FAT
    hu[anatomy.body(x, y, z, inset=11.0)] = SOFT
    table = (np.abs(y + 0.0008 * x * x - 119) < 2.2) & (np.abs(x) < 160)
    hu[np.broadcast_to(table, hu.shape) & (hu < -500)] = -350.0
    shell = anatomy.cavity(x, y, z)
    hu[(shell < 1) & (z < -62)] = FAT + 25
    _bones(hu, shell, x, y, z)
    for centre, semi, value in (
        ((-66, 0, -118), (78, 76, 62), LIVER),
        ((84, 20, -126), (44, 52, 46), SOFT + 6),
        ((26, -26, -46), (57, 46, 52), SOFT),
        ((58, -30, -122), (40, 34, 28), SOFT),
        ((60, -36, -120), (27, 20, 13), AIR + 4),
        ((8, 38, 84), (3.2, 3.2, 26), AIR + 20),
    ):
        window, inside = canvas.ball(centre, semi)
        hu[window][inside & (shell[window] < 1.0)] = value


def _bones(hu: Floats, shell: Floats, x: Floats, y: Floats, z: Floats) -> None:
    disc = np.mod(z + 0.05 * y, 27.0) < 6
    body = (x / 19) ** 2 + ((y - 63) / 16) ** 2 < 1
    hu[body & ~disc] = 230.0
    hu[body & disc] = 85.0
    arch = ((x / 17) ** 2 + ((y - 84) / 13) ** 2 < 1) & ~(body)
    hu[np.broadcast_to(arch, hu.shape)] = BONE
    hu[np.broadcast_to((x / 8) ** 2 + ((y - 83) / 7) ** 2 < 1, hu.shape)] = 30.0
    hu[np.broadcast_to((np.abs(x) < 3.5) & (y > 94) & (y < 104), hu.shape) & (hu > -500)] = BONE
    hu[(np.abs(x) < 17) & (y > -100) & (y < -91) & (z > -60) & (z < 88)] = 260.0
    rib = np.mod(z - 0.42 * y + 0.10 * np.abs(x), 26.0) < 11
    hu[(shell > 1.035) & (shell < 1.105) & rib & (z < 104) & (z > -128)] = BONE


def _lungs(canvas: Canvas, anatomy: Anatomy) -> None:
    x, y, z = canvas.whole()
    fluid = _effusion(x, y, z) if anatomy.variant == "effusion" else None
    for side, label in (("left", LEFT_LUNG), ("right", RIGHT_LUNG)):
        inside = anatomy.lung(x, y, z, side)
        if anatomy.variant == "one_lung" and side == "left":
            canvas.hu[inside] = WATER + 12
            continue
        aerated = inside & ~fluid if fluid is not None and side == "right" else inside
        canvas.hu[inside & ~aerated] = WATER
        canvas.labels[aerated] = label
        gravity = np.broadcast_to(PARENCHYMA + 0.22 * y, canvas.hu.shape)
        canvas.hu[aerated] = gravity[aerated]


def _effusion(x: Floats, y: Floats, z: Floats) -> Mask:
    """Fluid that has settled at the back and the base of a supine patient."""
    level: Mask = y > 26 + 0.34 * z + 0.05 * np.abs(x + 80)
    return level


def _disease(canvas: Canvas, anatomy: Anatomy) -> None:
    for side, label, count in (("right", RIGHT_LUNG, 9), ("left", LEFT_LUNG, 6)):
        for _ in range(count):
            radius = float(anatomy.random.uniform(10, 19))
            window, inside = canvas.ball(anatomy.anywhere(side, radius + 3), (radius,) * 3)
            inside &= canvas.labels[window] == label
            canvas.hu[window][inside] = EMPHYSEMA
            canvas.emphysema[window] |= inside
    for number, nodule in enumerate(_nodules(anatomy) if anatomy.nodules is None else anatomy.nodules, start=1):
        window, inside = canvas.ball(nodule.centre, nodule.semi)
        inside &= canvas.labels[window] > 0
        canvas.hu[window][inside] = nodule.hu
        canvas.nodules[window][inside] = number
    if anatomy.variant == "mass":
        window, inside = canvas.ball(anatomy.mass_centre, (anatomy.mass_radius,) * 3)
        canvas.mass[window] = inside
        canvas.hu[window][inside] = SOFT
        canvas.labels[window][inside] = 0
    canvas.emphysema &= canvas.hu == np.float32(EMPHYSEMA)


def _nodules(anatomy: Anatomy) -> Iterator[Nodule]:
    """Three solid ones and one of ground glass, each anywhere in its lung."""
    for side, radius, value in (
        ("right", 4.0, 30.0),
        ("left", 5.0, -40.0),
        ("right", 7.5, 45.0),
        ("left", 3.0, -620.0),
    ):
        yield Nodule(centre=anatomy.anywhere(side, 12.0), semi=(radius, radius * 0.9, radius), hu=value)


def _vessels(canvas: Canvas, anatomy: Anatomy) -> None:
    for start, end, radius in _branches(anatomy):
        window, inside = canvas.tube(start, end, radius)
        inside &= canvas.labels[window] > 0
        canvas.hu[window][inside] = SOFT
        canvas.emphysema[window] &= ~inside


def _branches(anatomy: Anatomy) -> Iterator[tuple[Point, Point, float]]:
    """Vessels from each hilum outwards, thinner and thinner."""
    for hilum in anatomy.hila:
        for _ in range(22):
            point = np.array(hilum)
            direction = anatomy.random.normal(size=3)
            direction[0] = np.copysign(abs(direction[0]) + 0.4, hilum[0])
            radius = float(anatomy.random.uniform(1.6, 2.8))
            for _ in range(4):
                direction /= np.linalg.norm(direction)
                end = point + direction * anatomy.random.uniform(14, 30)
                yield (point[0], point[1], point[2]), (end[0], end[1], end[2]), radius
                point, radius = end, radius * 0.78
                direction = direction + anatomy.random.normal(size=3) * 0.45


def _airways(canvas: Canvas, anatomy: Anatomy) -> None:
    missing = anatomy.variant == "one_lung"
    tubes = [tube for tube in anatomy.airways if not (missing and tube[1][0] > 50)]
    for start, end, radius, wall in tubes:
        window, inside = canvas.tube(start, end, radius + wall)
        canvas.hu[window][inside & (canvas.hu[window] > -2000)] = SOFT
        canvas.labels[window][inside] = 0
        canvas.emphysema[window] &= ~inside
    for start, end, radius, _ in tubes:
        window, inside = canvas.tube(start, end, radius)
        canvas.hu[window][inside] = AIR + 6


def _marker(canvas: Canvas, anatomy: Anatomy) -> None:
    corner: Point = (-112.0, -78.0, 60.0)
    for end in ((-94.0, -78.0, 60.0), (-112.0, -66.0, 60.0), (-112.0, -78.0, 84.0)):
        window, inside = canvas.tube(corner, end, 2.6)
        canvas.hu[window][inside] = 900.0
