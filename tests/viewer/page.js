// What a test asks of OHIF's page: its viewport, its display sets, the voxels and measurements that it holds.
window.__h = {
  toasts: [],
  vp: () => {
    const s = window.services;
    return s.cornerstoneViewportService.getCornerstoneViewport(s.viewportGridService.getState().activeViewportId);
  },
  ds: (series) => window.services.displaySetService.getActiveDisplaySets().find((d) => d.SeriesInstanceUID === series),
  ready: () => {
    try {
      const v = window.__h.vp();
      return !!(v && v.getCanvas() && v.getImageIds().length);
    } catch (e) {
      return false;
    }
  },
  go: async (sop) => {
    const v = window.__h.vp(), ids = v.getImageIds(), i = ids.findIndex((x) => x.includes('/instances/' + sop + '/'));
    if (i < 0) return -1;
    if (v.type === 'stack') await v.setImageIdIndex(i);
    else v.setViewReference({ referencedImageId: ids[i] });
    v.render();
    return i;
  },
  voxels: (id) => {
    const { cache } = window.cornerstone, per = {};
    const map_ = window.cornerstoneTools.segmentation.state.getSegmentation(id).representationData.Labelmap;
    for (const m of map_.labelmaps ? Object.values(map_.labelmaps) : [map_]) {
      const ids = m.imageIds || (m.volumeId && cache.getVolume(m.volumeId).imageIds) || [];
      const map = m.labelToSegmentIndex || m.segmentIndexMap || null;
      for (const i of ids) {
        const image = cache.getImage(i);
        if (!image) continue;
        for (const value of image.voxelManager ? image.voxelManager.getScalarData() : image.getPixelData()) {
          const number = map && map[value] !== undefined ? map[value] : value;
          if (value) per[number] = (per[number] || 0) + 1;
        }
      }
    }
    return per;
  },
  segmentations: () => window.services.segmentationService.getSegmentations().map((s) => ({
    id: s.segmentationId,
    labels: Object.values(s.segments).filter(Boolean).map((z) => z.label),
    voxels: window.__h.voxels(s.segmentationId),
  })),
  measurements: (series) => window.__h.ds(series).measurements.map((m) => ({
    placed: m.loaded,
    labels: m.labels.map((l) => [l.label, l.value]),
  })),
  question: (shown) => {
    let node = [...document.querySelectorAll('button')].find((b) => b.textContent.trim() === 'Yes');
    while (node && !node.textContent.includes('Do you want')) node = node.parentElement;
    if (node) node.style.visibility = shown ? '' : 'hidden';
  },
  inGrid: (points) => {
    const v = window.__h.vp(), r = v.getCanvas().getBoundingClientRect();
    const g = document.querySelector('[data-cy="viewport-grid"]').getBoundingClientRect();
    return points.map((q) => { const z = v.worldToCanvas(q); return [z[0] + r.left - g.left, z[1] + r.top - g.top]; });
  },
};
document.addEventListener('DOMContentLoaded', () => new MutationObserver((list) => {
  for (const change of list) for (const node of change.addedNodes) {
    if (node.nodeType !== 1) continue;
    const toast = '[data-sonner-toast]';
    for (const x of node.matches(toast) ? [node] : node.querySelectorAll(toast)) {
      window.__h.toasts.push(x.textContent.slice(0, 200));
    }
  }
}).observe(document.body, { childList: true, subtree: true }));
